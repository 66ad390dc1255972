"""The public names: the one table from which `__init__` loads them when they are first used."""

from .backends.base import (
    Backend as Backend,
)
from .backends.huggingface.backend import (
    HuggingFaceBackend as HuggingFaceBackend,
)
from .backends.hybrid import (
    HybridBackend as HybridBackend,
)
from .backends.scripted import (
    ScriptedBackend as ScriptedBackend,
)
from .backends.scripted import (
    ScriptedLine as ScriptedLine,
)
from .backends.vllm.backend import (
    VLLMEngineBackend as VLLMEngineBackend,
)
from .config import (
    Configuration as Configuration,
)
from .errors import (
    ConfigurationError as ConfigurationError,
)
from .errors import (
    EmptyPromptError as EmptyPromptError,
)
from .errors import (
    EngineDeadError as EngineDeadError,
)
from .errors import (
    EngineError as EngineError,
)
from .errors import (
    EngineStartError as EngineStartError,
)
from .errors import (
    EngineTimeoutError as EngineTimeoutError,
)
from .errors import (
    EvidenceError as EvidenceError,
)
from .errors import (
    HighUncertaintyError as HighUncertaintyError,
)
from .errors import (
    InvalidRequestError as InvalidRequestError,
)
from .errors import (
    MethodUnavailableError as MethodUnavailableError,
)
from .errors import (
    MissingDependencyError as MissingDependencyError,
)
from .errors import (
    ModelNotFoundError as ModelNotFoundError,
)
from .errors import (
    NotShareableError as NotShareableError,
)
from .errors import (
    PromptTooLongError as PromptTooLongError,
)
from .errors import (
    UncertaintyError as UncertaintyError,
)
from .errors import (
    UnknownMethodError as UnknownMethodError,
)
from .generators import (
    HybridUncertaintyGenerator as HybridUncertaintyGenerator,
)
from .generators import (
    VLLMStepGenerator as VLLMStepGenerator,
)
from .langchain import (
    ChatHuggingFaceUncertainty as ChatHuggingFaceUncertainty,
)
from .langchain import (
    ChatHybridUncertainty as ChatHybridUncertainty,
)
from .langchain import (
    ChatVLLMUncertainty as ChatVLLMUncertainty,
)
from .langchain import (
    HuggingFaceUncertaintyLLM as HuggingFaceUncertaintyLLM,
)
from .langchain import (
    HybridUncertaintyLLM as HybridUncertaintyLLM,
)
from .langchain import (
    VLLMUncertaintyLLM as VLLMUncertaintyLLM,
)
from .methods.base import (
    Method as Method,
)
from .methods.base import (
    evidence_method as evidence_method,
)
from .methods.base import (
    trace_method as trace_method,
)
from .methods.context import (
    Context as Context,
)
from .methods.contrib.luh import (
    LuhHead as LuhHead,
)
from .methods.entailment import (
    Classifier as Classifier,
)
from .methods.entailment import (
    EmbeddingSimilarity as EmbeddingSimilarity,
)
from .methods.entailment import (
    ServedJudge as ServedJudge,
)
from .methods.fitted.density import (
    DensityFit as DensityFit,
)
from .methods.fitted.fitting import (
    afit_density as afit_density,
)
from .methods.fitted.fitting import (
    afit_head as afit_head,
)
from .methods.fitted.fitting import (
    fit_density as fit_density,
)
from .methods.fitted.fitting import (
    fit_head as fit_head,
)
from .methods.fitted.head import (
    UncertaintyHead as UncertaintyHead,
)
from .methods.options import (
    MethodOptions as MethodOptions,
)
from .methods.registry import (
    METHODS as METHODS,
)
from .methods.registry import (
    missing_requirements as missing_requirements,
)
from .methods.registry import (
    register_method as register_method,
)
from .model import (
    UncertaintyModel as UncertaintyModel,
)
from .records import (
    Activations as Activations,
)
from .records import (
    Candidate as Candidate,
)
from .records import (
    Claim as Claim,
)
from .records import (
    Conversation as Conversation,
)
from .records import (
    Decision as Decision,
)
from .records import (
    EarlyStop as EarlyStop,
)
from .records import (
    Inspection as Inspection,
)
from .records import (
    Request as Request,
)
from .records import (
    Result as Result,
)
from .records import (
    SampleMonitor as SampleMonitor,
)
from .records import (
    SamplingEnd as SamplingEnd,
)
from .records import (
    Score as Score,
)
from .records import (
    TokenTrace as TokenTrace,
)
from .records import (
    Usage as Usage,
)
from .settings import (
    Settings as Settings,
)
from .strategies.abstain import (
    Abstain as Abstain,
)
from .strategies.abstain import (
    Policy as Policy,
)
from .strategies.base import (
    run_strategy as run_strategy,
)
from .strategies.best_of_n import (
    BestOfN as BestOfN,
)
from .strategies.best_of_n import (
    Single as Single,
)
from .strategies.quantities import (
    agreement as agreement,
)
from .strategies.quantities import (
    load_threshold as load_threshold,
)
from .strategies.quantities import (
    score as score,
)
from .strategies.quantities import (
    token_max as token_max,
)
from .strategies.quantities import (
    token_mean as token_mean,
)
from .strategies.quantities import (
    worst_window as worst_window,
)
from .strategies.retry import (
    Retry as Retry,
)
from .strategies.retry import (
    RetryErrors as RetryErrors,
)
from .strategies.self_consistency import (
    SelfConsistency as SelfConsistency,
)
from .strategies.step_state import (
    StepState as StepState,
)
from .strategies.stepwise import (
    Boundary as Boundary,
)
from .strategies.stepwise import (
    Stepwise as Stepwise,
)
from .truncation import (
    GivenText as GivenText,
)
from .truncation import (
    score_truncated_sequence as score_truncated_sequence,
)
from .version import __version__ as __version__

"""The public names: the one table from which `__init__` loads them when they are first used."""

from .backends.base import Backend as Backend
from .backends.huggingface.backend import HuggingFaceBackend as HuggingFaceBackend
from .backends.hybrid import HybridBackend as HybridBackend
from .backends.server.backend import VLLMServerBackend as VLLMServerBackend
from .backends.scripted import ScriptedBackend as ScriptedBackend, ScriptedLine as ScriptedLine
from .backends.vllm.backend import VLLMEngineBackend as VLLMEngineBackend
from .config import Configuration as Configuration
from .errors import (
    CalibrationMismatchError as CalibrationMismatchError,
    ConfigurationError as ConfigurationError, EmptyPromptError as EmptyPromptError,
    EngineBusyError as EngineBusyError, EngineClosedError as EngineClosedError,
    EngineDeadError as EngineDeadError, EngineError as EngineError,
    EngineLostError as EngineLostError, EngineStartError as EngineStartError,
    EngineTimeoutError as EngineTimeoutError, EvidenceError as EvidenceError,
    HighUncertaintyError as HighUncertaintyError,
    IncompleteAnswerError as IncompleteAnswerError, InvalidAnswerError as InvalidAnswerError,
    InvalidOptionError as InvalidOptionError, InvalidRequestError as InvalidRequestError,
    MethodUnavailableError as MethodUnavailableError,
    MissingDependencyError as MissingDependencyError, ModelNotFoundError as ModelNotFoundError,
    NotShareableError as NotShareableError, PromptTooLongError as PromptTooLongError,
    SourcesTooLongError as SourcesTooLongError,
    UncertaintyError as UncertaintyError, UnknownMethodError as UnknownMethodError,
)
from .generators import (
    HybridUncertaintyGenerator as HybridUncertaintyGenerator,
    VLLMStepGenerator as VLLMStepGenerator,
)
from .grounding.grounded_answer import (
    GroundedAnswer as GroundedAnswer, SourceSupport as SourceSupport,
)
from .grounding.grounding_options import Grounding as Grounding, Source as Source
from .langchain import (
    ChatHuggingFaceUncertainty as ChatHuggingFaceUncertainty,
    ChatHybridUncertainty as ChatHybridUncertainty, ChatVLLMUncertainty as ChatVLLMUncertainty,
    HuggingFaceUncertaintyLLM as HuggingFaceUncertaintyLLM,
    HybridUncertaintyLLM as HybridUncertaintyLLM, VLLMUncertaintyLLM as VLLMUncertaintyLLM,
)
from .methods.base import (
    Method as Method, evidence_method as evidence_method, trace_method as trace_method,
)
from .methods.context import Context as Context
from .methods.fitted.luh import LuhHead as LuhHead
from .methods.entailment import (
    Classifier as Classifier, EmbeddingSimilarity as EmbeddingSimilarity,
    ServedJudge as ServedJudge,
)
from .methods.fitted.density import DensityFit as DensityFit
from .methods.fitted.fitting import (
    afit_density as afit_density, afit_head as afit_head, fit_density as fit_density,
    fit_head as fit_head,
)
from .methods.fitted.head import UncertaintyHead as UncertaintyHead
from .methods.options import MethodOptions as MethodOptions
from .methods.registry import (
    METHODS as METHODS, missing_requirements as missing_requirements,
    register_method as register_method,
)
from .methods.sentence_embeddings import SentenceEmbeddings as SentenceEmbeddings
from .model import UncertaintyModel as UncertaintyModel
from .records import (
    Activations as Activations, Candidate as Candidate, Claim as Claim,
    Conversation as Conversation, Decision as Decision,
    Inspection as Inspection, Request as Request, Result as Result, SampleMonitor as SampleMonitor,
    SamplingEnd as SamplingEnd, Score as Score, TokenTrace as TokenTrace, Usage as Usage,
)
from .report.heat_map import HeatMap as HeatMap, heat_map as heat_map
from .report.notebook import (
    load_ipython_extension as load_ipython_extension,
    unload_ipython_extension as unload_ipython_extension,
)
from .settings import Settings as Settings
from .stop_rule import EarlyStop as EarlyStop
from .strategies.abstain import Abstain as Abstain, Policy as Policy
from .strategies.answers import (
    normalised_answer as normalised_answer, squad_answer as squad_answer,
)
from .strategies.base import Single as Single, run_strategy as run_strategy
from .strategies.best_of_n import BestOfN as BestOfN
from .strategies.quantities import (
    agreement as agreement, confidence as confidence, load_threshold as load_threshold, score as score,
    support as support, token_max as token_max, token_mean as token_mean, worst_window as worst_window,
)
from .strategies.retry import Retry as Retry, RetryErrors as RetryErrors
from .strategies.self_consistency import SelfConsistency as SelfConsistency
from .strategies.step_state import StepState as StepState
from .strategies.stepwise import Boundary as Boundary, Stepwise as Stepwise
from .truncation import GivenText as GivenText, score_truncated_sequence as score_truncated_sequence
from .version import __version__ as __version__

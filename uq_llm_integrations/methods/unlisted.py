"""Estimators of the installed lm-polygraph that the catalogue does not have, made into methods.

They are found in its source, so that neither it nor what an estimator imports is loaded before
one is asked for by name.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import cast

from uq_llm_integrations.errors import MethodUnavailableError, MissingDependencyError
from uq_llm_integrations.methods.base import Level, Method, evidence_method
from uq_llm_integrations.methods.polygraph import (
    Estimator,
    estimator_file,
    load_estimator,
    package_folder,
)

_GATHERED = """
attention_self attention_weights_eliciting_prompt background boosted_probabilities claims
concat_greedy_semantic_matrix_contra_forward concat_greedy_semantic_matrix_neutral_forward
embeddings_decoder entropy greedy_lm_log_likelihoods greedy_log_likelihoods greedy_log_probs
greedy_sentence_similarity greedy_texts greedy_tokens greedy_tokens_alternatives
greedy_tokens_alternatives_nli head_claim_doubts head_doubt hedge input_texts nli_to_sample_texts
p_true p_true_claim p_true_empirical p_true_sampling ranks sample_embeddings sample_log_likelihoods
sample_log_probs sample_sentence_similarity sample_texts sample_token_similarity sample_tokens
semantic_classes_entail semantic_matrix_contra semantic_matrix_contra_logits
semantic_matrix_entail semantic_matrix_entail_logits stated_confidence_1s stated_confidence_2s
token_similarity
"""

GATHERED = frozenset(_GATHERED.split())
"""What can be gathered of a candidate."""


@cache
def unlisted_method(name: str) -> Method | None:
    """Return the method of an estimator class of lm-polygraph; None where there is no such class.

    Its level is the estimator's, and its value is what the estimator gives, of which lm-polygraph
    promises that higher is more uncertain. Raises MethodUnavailableError where the class cannot be
    made without arguments, or reads what cannot be gathered.
    """
    module = _modules().get(name)
    if module is None:
        return None
    _check_arguments(name, module)
    estimator = _made(name, module)
    needs = list(estimator.stats_dependencies) or ["greedy_tokens"]
    if lacking := [need for need in needs if need not in GATHERED]:
        raise MethodUnavailableError(
            f"lm-polygraph's {name} reads {', '.join(lacking)}, which cannot be gathered here"
        )
    if estimator.level == "claim" and "claims" not in needs:
        needs.append("claims")  # TokenSARClaim forgets to declare them
    return evidence_method(
        name,
        None,
        f"{module}:{name}",
        "logprob",
        " ".join(needs),
        "https://github.com/IINemo/lm-polygraph",
        "The value that lm-polygraph's estimator of this name gives.",
        level=cast(Level, estimator.level),
        listed=False,
    )


def _made(name: str, module: str) -> Estimator:
    try:
        return load_estimator(f"{module}:{name}")
    except Exception as error:  # theirs, and so anything
        raise MethodUnavailableError(
            f"lm-polygraph's {name} cannot be made: {type(error).__name__}: {error}"
        ) from error


def _check_arguments(name: str, module: str) -> None:
    required = _required_arguments(estimator_file(module), name)
    if required:
        raise MethodUnavailableError(
            f"lm-polygraph's {name} has arguments without defaults, which a name cannot give: "
            f"{', '.join(required)}"
        )


def _required_arguments(path: Path, name: str) -> list[str]:
    """Return the constructor's arguments without defaults, self left out."""
    kinds = (node for node in ast.parse(path.read_text("utf-8")).body if _is_class(node, name))
    makers = (
        node.args
        for kind in kinds
        for node in ast.walk(kind)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    arguments = next(makers, None)
    if arguments is None:
        return []
    plain = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [
        *plain[1 : len(plain) - len(arguments.defaults)],
        *(one.arg for one, default in named if default is None),
    ]


def _is_class(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


@cache
def _modules() -> dict[str, str]:
    """Return the module of each class that `lm_polygraph.estimators` offers; none without it."""
    try:
        source = (package_folder() / "estimators" / "__init__.py").read_text("utf-8")
    except MissingDependencyError:
        return {}
    return {
        offered.name: node.module
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 1
        for offered in node.names
        if offered.name != "Estimator"
    }

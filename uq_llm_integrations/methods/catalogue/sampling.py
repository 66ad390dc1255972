"""Methods that compare samples of the same prompt."""

from __future__ import annotations

from uq_llm_integrations.methods.base import evidence_method

TUTORIAL = "https://arxiv.org/abs/2406.15627"
GRAPH = "https://arxiv.org/abs/2305.19187"
SAR = "https://arxiv.org/abs/2307.01379"
COCOA = "https://arxiv.org/abs/2502.04964"
SEMANTIC = "https://arxiv.org/abs/2302.09664"

SAMPLING_METHODS = (
    evidence_method(
        "SemanticEntropy", "semantic_entropy", "semantic_entropy:SemanticEntropy",
        "sampling", "sample_log_probs sample_texts semantic_classes_entail", SEMANTIC,
        "Entropy over meanings: samples that entail one another count as one; nats.",
    ),
    evidence_method(
        "SemanticEntropyEmpirical", "semantic_entropy_empirical",
        "semantic_entropy:SemanticEntropy",
        "sampling", "sample_texts semantic_classes_entail",
        "https://doi.org/10.1038/s41586-024-07421-0",
        "The same with the share of the samples in place of their probability.",
        options={"class_probability_estimation": "frequency"},
    ),
    evidence_method(
        "LexicalSimilarity", "lexical_similarity", "lexical_similarity:LexicalSimilarity",
        "sampling", "sample_texts", "https://aclanthology.org/2020.tacl-1.35",
        "Negated mean ROUGE-L between the samples; -1 to 0.",
    ),
    evidence_method(
        "NumSemSets", "num_sem_sets", "num_sem_sets:NumSemSets",
        "sampling", "semantic_matrix_entail semantic_matrix_contra sample_texts", GRAPH,
        "Number of meanings among the samples.",
    ),
    evidence_method(
        "DegMat", "deg_mat", "deg_mat:DegMat",
        "sampling", "semantic_matrix_entail sample_texts", GRAPH,
        "How little the samples entail one another, by their degrees in the graph; 0 to 1.",
    ),
    evidence_method(
        "DegMatJaccard", "deg_mat_jaccard", "deg_mat:DegMat",
        "sampling", "sample_texts", GRAPH,
        "The same with the share of common words in place of entailment.",
        options={"similarity_score": "Jaccard_score"},
    ),
    evidence_method(
        "Eccentricity", "eccentricity", "eccentricity:Eccentricity",
        "sampling", "semantic_matrix_entail sample_texts", GRAPH,
        "Spread of the samples in the graph's spectral embedding.",
    ),
    evidence_method(
        "EccentricityJaccard", "eccentricity_jaccard", "eccentricity:Eccentricity",
        "sampling", "sample_texts", GRAPH,
        "The same with the share of common words in place of entailment.",
        options={"similarity_score": "Jaccard_score"},
    ),
    evidence_method(
        "EigValLaplacian", "eigval_laplacian", "eig_val_laplacian:EigValLaplacian",
        "sampling", "semantic_matrix_entail sample_texts", GRAPH,
        "A continuous number of meanings, from the eigenvalues of the graph's Laplacian.",
    ),
    evidence_method(
        "EigValLaplacianJaccard", "eigval_laplacian_jaccard", "eig_val_laplacian:EigValLaplacian",
        "sampling", "sample_texts", GRAPH,
        "The same with the share of common words in place of entailment.",
        options={"similarity_score": "Jaccard_score"},
    ),
    evidence_method(
        "LabelProb", "consistency", "label_prob:LabelProb",
        "sampling", "semantic_classes_entail", TUTORIAL,
        "Share of the samples outside the most frequent meaning; 0 to 1.",
    ),
    evidence_method(
        "MonteCarloSequenceEntropy", "mc_entropy",
        "monte_carlo_sequence_entropy:MonteCarloSequenceEntropy",
        "sampling", "sample_log_probs", "https://arxiv.org/abs/2302.09664",
        "Mean negative log-probability of the samples, an estimate of the text's entropy; nats.",
    ),
    evidence_method(
        "MonteCarloNormalizedSequenceEntropy", "mc_normalized_entropy",
        "monte_carlo_normalized_sequence_entropy:MonteCarloNormalizedSequenceEntropy",
        "sampling", "sample_log_probs sample_tokens", "https://aclanthology.org/2020.tacl-1.35",
        "The same, each sample's divided by its number of tokens.",
    ),
    evidence_method(
        "KernelLanguageEntropy", "kernel_language_entropy",
        "kernel_language_entropy:KernelLanguageEntropy",
        "sampling", "semantic_matrix_entail semantic_matrix_contra",
        "https://arxiv.org/abs/2405.20003",
        "Von Neumann entropy of a heat kernel over the samples' meanings; 0 to 1.",
    ),
    evidence_method(
        "LUQ", "luq", "luq:LUQ",
        "sampling", "semantic_matrix_entail_logits semantic_matrix_contra_logits",
        "https://arxiv.org/abs/2403.20279",
        "How little the samples support one another; 0 to 1.",
    ),
    evidence_method(
        "SemanticDensity", "semantic_density", "semantic_density:SemanticDensity",
        "sampling",
        "sample_log_probs sample_tokens sample_texts concat_greedy_semantic_matrix_contra_forward "
        "concat_greedy_semantic_matrix_neutral_forward", "https://arxiv.org/abs/2405.13845",
        "Negated share of the samples' probability that means what the answer means; -1 to 0.",
    ),
    evidence_method(
        "TokenSAR", "token_sar", "token_sar:TokenSAR",
        "sampling", "token_similarity", SAR,
        "Negative log-probability, each token weighed by what the text loses without it; nats.",
    ),
    evidence_method(
        "SentenceSAR", "sentence_sar", "sentence_sar:SentenceSAR",
        "sampling", "sample_sentence_similarity sample_log_probs", SAR,
        "Negative log of the samples' probabilities, raised by that of similar ones; nats.",
    ),
    evidence_method(
        "SAR", "sar", "sar:SAR",
        "sampling",
        "sample_sentence_similarity sample_log_likelihoods sample_token_similarity", SAR,
        "Both: similar samples, and tokens weighed by what they matter; nats.",
    ),
    evidence_method(
        "CocoaMSP", "cocoa_msp", "cocoa:CocoaMSP",
        "sampling", "greedy_sentence_similarity", COCOA,
        "Negative log-probability times the mean dissimilarity of the samples.",
    ),
    evidence_method(
        "CocoaPPL", "cocoa_ppl", "cocoa:CocoaPPL",
        "sampling", "greedy_sentence_similarity", COCOA,
        "The same with the mean over the tokens.",
    ),
    evidence_method(
        "CocoaMTE", "cocoa_mte", "cocoa:CocoaMTE",
        "sampling", "greedy_sentence_similarity entropy", COCOA,
        "The same with the mean entropy.",
    ),
)  # fmt: skip  # a table, one method a block

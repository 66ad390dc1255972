"""Real tokenizers of every kind, small enough to be made in a test."""

from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
CORPUS = ["the cat and the dog sat on the mat", "naïve Zürich", "東京 東京", "🙂🙂 👩‍👩‍👧 🇫🇷"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁", "▁the", "▁c", "at", *"abcdefghijklmnopqrstuvwxyz", "東", "▁東"]


def byte_level() -> Tokenizer:
    """As GPT-2's and Qwen's: a token is some bytes, wherever characters end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: SentencePiece, where an unknown character is so many bytes."""
    words = ["<unk>", *BYTES, *PIECES]
    vocabulary = {word: i for i, word in enumerate(words)}
    model = models.BPE(vocabulary, [("▁", "c"), ("▁", "東")], byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def unigram() -> Tokenizer:
    """As T5's and Gemma's: SentencePiece's other model."""
    words = [("<unk>", 0.0), *((one, -9.0) for one in BYTES), *((one, -3.0) for one in PIECES)]
    tokenizer = Tokenizer(models.Unigram(words, 0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def word_pieces() -> Tokenizer:
    """As BERT's: the decoder puts spaces between words, and cleans them up."""
    letters = "abcdefghijklmnopqrstuvwxyz東京.,!'"
    words = ["[UNK]", "the", "cat", *letters, *(f"##{one}" for one in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    one.__name__: one for one in (byte_level, byte_fallback, unigram, word_pieces)
}


@cache
def tiny(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of that kind, whose last token is special: `END`."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    clean = kind == "word_pieces"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, clean_up_tokenization_spaces=clean
    )

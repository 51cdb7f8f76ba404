"""A small sentence encoder: random weights, but written by the library that real ones are written with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = "a video of moving left right up down somebody plays the cello in rain cat dog and"


def word_tokenizer(**arguments: Any) -> Any:
    """A fast tokenizer of :data:`WORDS`, with BERT's special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator([WORDS], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **arguments)


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a BERT of one layer with its tokenizer, mean pooling and normalisation."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel

    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BertModel(config)
    raw = folder.with_name(f"{folder.name}-raw")
    tokenizer.save_pretrained(raw)
    network.save_pretrained(raw)
    transformer = modules.Transformer(str(raw), max_seq_length=32)
    parts = [transformer, modules.Pooling(transformer.get_embedding_dimension()), modules.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder))
    return folder

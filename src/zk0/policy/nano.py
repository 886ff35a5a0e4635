"""The embedded policy's shape: a SmolVLA of about 2 M parameters, and the VLM folder it is built from.

``SmolVLAPolicy`` reads its vision-language model's configuration, processor and tokenizer from
``vlm_model_name``. For the 450 M policy that is a Hub repository; for the embedded one it is a
folder that this module writes.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
)
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

IMAGE_SIZE = 96
PATCH_SIZE = 12
CHUNK = 8
_SPECIAL = {
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "<end_of_utterance>",
}
_IMAGE_TOKENS = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "global_image_token": "<global-img>",
}


def _tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: short for the corpus's words, able to spell any other."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=448,
        special_tokens=[*_SPECIAL.values(), *_IMAGE_TOKENS.values(), "<end_of_utterance>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, extra_special_tokens=_IMAGE_TOKENS, **_SPECIAL
    )


def write_vlm(folder: Path, corpus: list[str]) -> None:
    """Write the small VLM's configuration, processor and tokenizer (no weights) into ``folder``.

    Args:
        folder: Created if missing.
        corpus: Sentences from which the tokenizer learns its merges.
    """
    tokenizer = _tokenizer(corpus)
    config = SmolVLMConfig(  # type: ignore[call-arg]
        image_token_id=tokenizer.convert_tokens_to_ids(_IMAGE_TOKENS["image_token"]),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
        vision_config=SmolVLMVisionConfig(  # type: ignore[call-arg]
            hidden_size=144,
            intermediate_size=432,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
        ).to_dict(),
        text_config=LlamaConfig(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        ).to_dict(),
    )
    image_processor = SmolVLMImageProcessor(
        do_resize=False, do_image_splitting=False, size={"longest_edge": IMAGE_SIZE}
    )
    video_processor = SmolVLMVideoProcessor(
        video_sampling={"fps": 1, "max_frames": 8, "video_size": {"longest_edge": IMAGE_SIZE}}
    )
    processor = SmolVLMProcessor(
        image_processor=image_processor, tokenizer=tokenizer, video_processor=video_processor, image_seq_len=16
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)

"""The embedded policy's shape: a SmolVLA of about 2 M parameters, and the VLM folder it is built from.

``SmolVLAPolicy`` reads its vision-language model's configuration, processor and tokenizer from
``vlm_model_name``. For the pretrained 450 M policy that is a Hub repository; for the embedded one,
and for one of full size with random weights, it is a folder that this module writes.
"""

from __future__ import annotations

from dataclasses import dataclass
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

from zk0.data.sim.tasks import PUBLIC

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


@dataclass(frozen=True)
class VlmShape:
    """Sizes of a SmolVLM.

    Attributes:
        image: Side of the vision encoder's images, in pixels.
        patch: Side of its patches.
        shuffle: Patches whose side this is become one image token.
        vision: Width, feed-forward width, layers and heads of the vision encoder.
        text: Width, feed-forward width, layers, query heads and key heads of the language model.
        words: Rows of its vocabulary (0 = as many as the tokenizer has).
        context: Most tokens in a sequence.
    """

    image: int
    patch: int
    shuffle: int
    vision: tuple[int, int, int, int]
    text: tuple[int, int, int, int, int]
    words: int
    context: int


NANO = VlmShape(IMAGE_SIZE, PATCH_SIZE, 2, (144, 432, 4, 4), (128, 384, 4, 4, 4), 0, 512)
# SmolVLM2-500M-Video-Instruct: Marafioti et al., "SmolVLM: Redefining small and efficient multimodal models", 2025.
FULL = VlmShape(512, 16, 4, (768, 3072, 12, 12), (960, 2560, 32, 15, 5), 49_280, 8192)


def _corpus() -> list[str]:
    """Every sentence of the public mixture; the tokenizer learns its merges from them."""
    return [task.sentence(shape, colour) for task in PUBLIC for shape in task.shapes for colour in task.colours]


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: short for the public mixture's words, able to spell any other."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=448,
        special_tokens=[*_SPECIAL.values(), *_IMAGE_TOKENS.values(), "<end_of_utterance>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_max_length=64, extra_special_tokens=_IMAGE_TOKENS, **_SPECIAL
    )


def write_vlm(folder: Path, shape: VlmShape = NANO) -> None:
    """Write a VLM's configuration, processor and tokenizer (no weights) into ``folder``.

    Args:
        folder: Created if missing.
        shape: The sizes.
    """
    tokenizer = _tokenizer()
    vision_width, vision_inner, vision_layers, vision_heads = shape.vision
    width, inner, layers, heads, key_heads = shape.text
    config = SmolVLMConfig(  # type: ignore[call-arg]
        image_token_id=tokenizer.convert_tokens_to_ids(_IMAGE_TOKENS["image_token"]),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=shape.shuffle,
        tie_word_embeddings=False,
        vision_config=SmolVLMVisionConfig(  # type: ignore[call-arg]
            hidden_size=vision_width,
            intermediate_size=vision_inner,
            num_hidden_layers=vision_layers,
            num_attention_heads=vision_heads,
            image_size=shape.image,
            patch_size=shape.patch,
        ).to_dict(),
        text_config=LlamaConfig(  # type: ignore[call-arg]
            vocab_size=shape.words or len(tokenizer),
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            head_dim=width // heads,
            max_position_embeddings=shape.context,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        ).to_dict(),
    )
    image_processor = SmolVLMImageProcessor(
        do_resize=False, do_image_splitting=False, size={"longest_edge": shape.image}
    )
    video_processor = SmolVLMVideoProcessor(
        video_sampling={"fps": 1, "max_frames": 8, "video_size": {"longest_edge": shape.image}}
    )
    processor = SmolVLMProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=video_processor,
        image_seq_len=(shape.image // shape.patch // shape.shuffle) ** 2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)

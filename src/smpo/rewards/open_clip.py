"""open_clip's layout of a CLIP checkpoint, which HPSv2 is published in, as transformers' CLIPModel."""

from torch import Tensor
from transformers import CLIPConfig

from smpo.core.errors import DataError
from smpo.rewards.weights import Tensors

TEXT_HEAD = 64  # width of an attention head of every CLIP text tower
SETTINGS_KEPT_AS_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # in some older files

TOWERS = {"visual.": "vision_model.", "": "text_model."}
IN_A_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers' own spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


def clip_config(tensors: Tensors, *, vision_head: int, activation: str) -> CLIPConfig:
    """The configuration of an open_clip checkpoint, from its shapes.

    Args:
        tensors: in open_clip's layout.
        vision_head: width of an attention head of the image tower, which does not follow from a shape: 80 in ViT-H/14.
        activation: "gelu", or "quick_gelu" for OpenAI's weights.

    Raises:
        DataError: the tensors are not in this layout.
    """
    try:
        patches, text = tensors["visual.conv1.weight"], tensors["token_embedding.weight"]
        grid = round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5)
        fc = {tower: tensors[f"{tower}transformer.resblocks.0.mlp.c_fc.weight"] for tower in TOWERS}
        positions, projection = len(tensors["positional_embedding"]), tensors["text_projection"].shape[1]
    except KeyError as error:
        raise DataError(f"the checkpoint has no {error.args[0]}: it is no CLIP in open_clip's layout; "
                        "use the published file") from error
    vision_config = {
        "hidden_size": len(patches), "intermediate_size": len(fc["visual."]), "patch_size": patches.shape[-1],
        "num_hidden_layers": _num_blocks(tensors, "visual."), "num_attention_heads": len(patches) // vision_head,
        "image_size": grid * patches.shape[-1], "hidden_act": activation, "layer_norm_eps": 1e-5,
    }
    text_config = {
        "hidden_size": text.shape[1], "intermediate_size": len(fc[""]), "vocab_size": len(text),
        "num_hidden_layers": _num_blocks(tensors, ""), "num_attention_heads": text.shape[1] // TEXT_HEAD,
        "max_position_embeddings": positions, "hidden_act": activation, "layer_norm_eps": 1e-5,
        "bos_token_id": len(text) - 2, "eos_token_id": len(text) - 1, "pad_token_id": 0,
    }
    return CLIPConfig(vision_config=vision_config, text_config=text_config, projection_dim=projection)


def to_transformers(tensors: Tensors) -> Tensors:
    """The tensors under CLIPModel's names; unknown names stay as they are, and the loader refuses them."""
    converted: Tensors = {}
    for name, tensor in tensors.items():
        if name in TRANSPOSED:
            converted[TRANSPOSED[name]] = tensor.T.contiguous()
        elif ".resblocks." in name:
            converted |= _in_a_block(name, tensor)
        elif name not in SETTINGS_KEPT_AS_WEIGHTS:
            converted[OUTSIDE.get(name, name)] = tensor
    return converted


def _in_a_block(name: str, tensor: Tensor) -> Tensors:
    """One tensor of a transformer block under its new name; the joint in-projection as q, k and v."""
    tower, _, rest = name.partition("transformer.resblocks.")
    number, _, inner = rest.partition(".")
    block = f"{TOWERS.get(tower, tower)}encoder.layers.{number}."
    if inner.startswith("attn.in_proj_"):
        kind = inner.removeprefix("attn.in_proj_")  # weight or bias
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{block}self_attn.{letter}_proj.{kind}": part for letter, part in parts}
    module, _, kind = inner.rpartition(".")
    return {f"{block}{IN_A_BLOCK.get(module, module)}.{kind}": tensor}


def _num_blocks(tensors: Tensors, tower: str) -> int:
    prefix = f"{tower}transformer.resblocks."
    return 1 + max(int(name.removeprefix(prefix).partition(".")[0]) for name in tensors if name.startswith(prefix))

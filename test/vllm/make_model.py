"""Makes the model of the vLLM tests: a Llama of 2.9 million parameters with a byte-level tokenizer, from a fixed seed.

    python make_model.py FOLDER

The weights are strong on purpose. vLLM's own dummy weights give nearly uniform logits, with which the output hardly depends on
the KV cache and equal tokens prove nothing; with these, one corrupted block changes the tokens of the prompts behind it.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, INTERMEDIATE, VOCABULARY, LAYERS = 256, 512, 1024, 4
HEADS, KV_HEADS, HEAD = 4, 2, 64
POSITIONS = 8192
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "torch_dtype": "bfloat16",
    "attention_bias": False,
    "mlp_bias": False,
}
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "model_max_length": POSITIONS,
    "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
}


def tokenizer():
    """A token for each byte, three special ones, and unused ones up to the model's vocabulary."""
    special = ["<s>", "</s>", "<pad>"]
    names = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f"<extra_{i}>" for i in range(len(names), VOCABULARY)]
    made = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return made


def weights():
    generator = torch.Generator().manual_seed(0)

    def matrix(rows, columns, scale=1.0):
        return (torch.randn(rows, columns, generator=generator) * scale / columns**0.5).to(torch.bfloat16)

    def ones():
        return torch.ones(HIDDEN, dtype=torch.bfloat16)

    made = {
        "model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN, 16.0),
        "lm_head.weight": matrix(VOCABULARY, HIDDEN, 3.0),
        "model.norm.weight": ones(),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, rows, scale in (
            ("q_proj", HEADS * HEAD, 2.0),
            ("k_proj", KV_HEADS * HEAD, 2.0),
            ("v_proj", KV_HEADS * HEAD, 3.0),
        ):
            made[f"{at}self_attn.{name}.weight"] = matrix(rows, HIDDEN, scale)
        made[f"{at}self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * HEAD, 3.0)
        made[f"{at}mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        made[f"{at}mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        made[f"{at}mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
        made[f"{at}input_layernorm.weight"] = ones()
        made[f"{at}post_attention_layernorm.weight"] = ones()
    return made


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER, indent=1))
    tokenizer().save(str(folder / "tokenizer.json"))
    save_file(weights(), str(folder / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main()

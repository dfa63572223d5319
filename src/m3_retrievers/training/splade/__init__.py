"""Training SPLADE: a masked-language model's logits as term weights, kept few by FLOPS losses."""

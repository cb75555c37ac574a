"""Fine-tuning: a LoRA of a base model from a data set."""

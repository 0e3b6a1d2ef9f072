"""TRL's DPOTrainer. Variant: `<pairs per forward pass>-<in_step|precomputed>` (when the reference model is asked).

It gets what makes its losses comparable with Danlu's step by step: the seed of Danlu's run, from which the adapter is drawn, and
rendered text that ends with the end token (of a conversation it would train on the line break that the template puts behind it too).
"""

import json
import sys
from pathlib import Path


def main():
    task = json.loads(sys.argv[1])
    micro_batch_size, reference = task["variant"].split("-")
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer
    from watch import Watch

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    rows = [as_text(tokenizer, json.loads(line)) for line in Path(task["data"]).read_text("utf-8").splitlines()]
    args = DPOConfig(
        output_dir=task["work"],
        seed=0,
        beta=0.1,
        max_length=task["max_seq_len"] * 2,
        precompute_ref_log_probs=reference == "precomputed",
        per_device_train_batch_size=int(micro_batch_size),
        gradient_accumulation_steps=task["global_batch_size"] // int(micro_batch_size),
        max_steps=task["steps"],
        learning_rate=task["learning_rate"],
        lr_scheduler_type="constant",
        warmup_steps=0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    lora = LoraConfig(r=task["rank"], lora_alpha=task["alpha"], lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    watch = Watch(tokenizer.pad_token_id, counts_only_training=True)
    data = datasets.Dataset.from_list(rows)
    trainer = DPOTrainer(model=model, args=args, train_dataset=data, peft_config=lora, processing_class=tokenizer, callbacks=[watch])
    trainer.train()
    watch.finish()


def as_text(tokenizer, row):
    """Prompt, and both answers up to their end token."""
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    answers = {key: tokenizer.apply_chat_template(row["prompt"] + row[key], tokenize=False)[len(prompt) :].rstrip("\n") for key in ("chosen", "rejected")}
    return {"prompt": prompt, **answers}


if __name__ == "__main__":
    main()

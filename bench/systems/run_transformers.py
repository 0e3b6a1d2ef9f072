"""Transformers' Trainer with PEFT, and TRL's SFTTrainer. Variant: `<hf|trl>-<dynamic|grouped|packing>-<examples per forward pass>`."""

import json
import sys
from pathlib import Path


def main():
    task = json.loads(sys.argv[1])
    system, batching, micro_batch_size = task["variant"].split("-")
    # A packed row holds about two examples of this data, so half as many rows make a step of about as many tokens.
    rows_per_step = task["global_batch_size"] // 2 if batching == "packing" else task["global_batch_size"]
    import datasets
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
    from watch import Watch

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    rows = [json.loads(line)["messages"] for line in Path(task["data"]).read_text("utf-8").splitlines()]
    lora = LoraConfig(r=task["rank"], lora_alpha=task["alpha"], lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    settings = {
        "output_dir": task["work"],
        "per_device_train_batch_size": int(micro_batch_size),
        "gradient_accumulation_steps": max(1, rows_per_step // int(micro_batch_size)),
        "max_steps": task["steps"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "train_sampling_strategy": "group_by_length" if batching == "grouped" else "sequential",
    }
    watch = Watch(tokenizer.pad_token_id)
    if system == "hf":
        model = get_peft_model(model, lora)
        data = datasets.Dataset.from_list([encode(tokenizer, messages) for messages in rows])
        collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
        trainer = Trainer(model=model, args=TrainingArguments(**settings), train_dataset=data, data_collator=collator, callbacks=[watch])
    else:
        from trl import SFTConfig, SFTTrainer

        data = datasets.Dataset.from_list([{"prompt": m[:-1], "completion": m[-1:]} for m in rows])
        packing = {"packing": True, "packing_strategy": "bfd"} if batching == "packing" else {}
        args = SFTConfig(**settings, max_length=task["max_seq_len"], **packing)
        trainer = SFTTrainer(model=model, args=args, train_dataset=data, peft_config=lora, processing_class=tokenizer, callbacks=[watch])
    trainer.train()
    watch.finish()


def encode(tokenizer, messages):
    """Ids, and labels on the answer with its end token."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    labels = [-100] * len(prompt_ids) + ids[len(prompt_ids) :]
    end = len(ids) - 1 - ids[::-1].index(tokenizer.eos_token_id)
    labels[end + 1 :] = [-100] * (len(ids) - end - 1)
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "length": len(ids)}


if __name__ == "__main__":
    main()

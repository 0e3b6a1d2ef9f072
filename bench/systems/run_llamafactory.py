"""LLaMA-Factory. Variant: `<dynamic|packing>-<examples per forward pass>`."""

import json
import os
import sys
from pathlib import Path


def main():
    task = json.loads(sys.argv[1])
    batching, micro_batch_size = task["variant"].split("-")
    # A packed row holds about two examples of this data, so half as many rows make a step of about as many tokens.
    rows_per_step = task["global_batch_size"] // 2 if batching == "packing" else task["global_batch_size"]
    work = Path(task["work"])
    work.mkdir(parents=True, exist_ok=True)
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": str(Path(task["data"]).resolve()), "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (work / "dataset_info.json").write_text(json.dumps({"bench": entry}))
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    from llamafactory.train.tuner import run_exp
    from transformers import AutoTokenizer
    from watch import Watch

    watch = Watch(AutoTokenizer.from_pretrained(task["model"]).pad_token_id)
    run_exp(
        {
            "model_name_or_path": task["model"],
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": task["rank"],
            "lora_alpha": int(task["alpha"]),
            "lora_dropout": 0.0,
            "lora_target": "all",
            "dataset": "bench",
            "dataset_dir": str(work),
            "template": "chatml",
            "cutoff_len": task["max_seq_len"],
            "packing": batching == "packing",
            "disable_gradient_checkpointing": True,
            "disable_shuffling": True,
            "overwrite_cache": True,
            "preprocessing_num_workers": 1,
            "output_dir": str(work / "out"),
            "per_device_train_batch_size": int(micro_batch_size),
            "gradient_accumulation_steps": max(1, rows_per_step // int(micro_batch_size)),
            "max_steps": task["steps"],
            "learning_rate": task["learning_rate"],
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "bf16": False,
            "fp16": False,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        callbacks=[watch],
    )
    watch.finish()


if __name__ == "__main__":
    main()

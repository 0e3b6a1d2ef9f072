"""One program per system. Each runs in its own environment, gets one JSON argument and prints one JSON result line.

Input: model (folder), data (JSONL of messages), steps, global_batch_size, learning_rate, rank, alpha, variant, work (folder).
Result: losses (one per step), tokens (padding not counted), seconds and
cpu_seconds (one per step), peak_memory_bytes.
"""

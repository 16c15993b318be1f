"""A vLLM engine in this process, driven by JSON lines on standard input: [command, arguments].

    python engine.py OPTIONS_JSON

Options are keyword arguments of vllm.LLM, kv_transfer_config as an object; kv_events: its KV events are listened to. Answers are JSON lines on descriptor 3, one for
each command, as vLLM and the libraries below it print to standard output: {"result": …} or {"error": …}.
"""

import json
import os
import sys
import time
import traceback

import lifeline
import msgspec
import zmq

# The engine's core in this process, so that its end is ours; workers of a tensor-parallel engine are processes anyway.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


class Engine:
    def __init__(self, options):
        from vllm import LLM
        from vllm.config import KVEventsConfig, KVTransferConfig

        if options.pop("kv_events", False):
            self.subscriber = zmq.Context.instance().socket(zmq.SUB)
            self.subscriber.subscribe(b"")
            # The publisher is in this process, and uses the same context.
            endpoint = "inproc://kv-events"
            self.subscriber.connect(endpoint)
            options["kv_events_config"] = KVEventsConfig(enable_kv_cache_events=True, publisher="zmq", endpoint=endpoint)
        transfer = options.pop("kv_transfer_config", None)
        if transfer:
            options["kv_transfer_config"] = KVTransferConfig(**transfer)
        self.llm = LLM(**options)

    def generate(self, prompts, sampling):
        """Prompts are lists of token ids; each is answered before the next begins, unless sampling says "together"."""
        from vllm import SamplingParams

        together = sampling.pop("together", False)
        parameters = SamplingParams(temperature=0, ignore_eos=True, **sampling)
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        batches = [inputs] if together else [[one] for one in inputs]
        outputs = [output for batch in batches for output in self.llm.generate(batch, parameters, use_tqdm=False)]
        return [
            {
                "tokens": list(output.outputs[0].token_ids),
                "prompt": len(output.prompt_token_ids),
                "cached": output.num_cached_tokens,
                "finish": output.outputs[0].finish_reason,
                "ttft": output.metrics.first_token_latency * 1000 if output.metrics else None,
            }
            for output in outputs
        ]

    def reset(self, everywhere):
        """Forgets the engine's own prefix cache; everywhere: what its connector keeps elsewhere, too."""
        deadline = time.monotonic() + 60
        while not self.llm.reset_prefix_cache(reset_connector=everywhere):
            if time.monotonic() > deadline:
                return False
            # Blocks that were being saved are given back in a later step, and an idle engine makes none.
            self.generate([[3]], {"max_tokens": 1})
            time.sleep(0.1)
        return True

    def metrics(self):
        """Counters and gauges by name, histograms as their count and sum; those of several labels are added up."""
        values = {}
        for metric in self.llm.get_metrics():
            for part in ("value", "count", "sum"):
                value = getattr(metric, part, None)
                if isinstance(value, int | float):
                    name = metric.name if part == "value" else f"{metric.name}_{part}"
                    values[name] = values.get(name, 0) + value
        return values

    def events(self):
        """What was published since the last call; waits until half a second brings nothing. Hashes as text."""
        found = []
        while self.subscriber.poll(500):
            _, _, payload = self.subscriber.recv_multipart()
            for event in msgspec.msgpack.decode(payload)[1]:
                parent = event.get("parent_block_hash")
                found.append(
                    {
                        "type": event["type"],
                        "medium": event.get("medium"),
                        "hashes": [str(one) for one in event.get("block_hashes", ())],
                        "parent": None if parent is None else str(parent),
                        "tokens": event.get("token_ids", []),
                    }
                )
        return found

    def stop(self):
        """Ends as a user's engine does, the connector's goodbye included."""
        self.llm.llm_engine.engine_core.shutdown()


def main():
    lines = lifeline.hold()
    replies = os.fdopen(3, "w", buffering=1)

    def answer(line):
        replies.write(json.dumps(line) + "\n")

    try:
        engine = Engine(json.loads(sys.argv[1]))
    except BaseException:
        answer({"error": traceback.format_exc()})
        raise
    answer({"result": None})
    command = None
    while command != "stop":
        command, arguments = json.loads(lines.get())
        try:
            answer({"result": getattr(engine, command)(*arguments)})
        except Exception:
            answer({"error": traceback.format_exc()})
    replies.flush()


if __name__ == "__main__":
    main()

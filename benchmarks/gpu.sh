#!/bin/sh
# Everything there is to measure on one GPU, in one command: sh benchmarks/gpu.sh [OUTPUT_FOLDER]
#
# Needs jax with CUDA, flax, optax, orbax, gin-config, numpy; for the comparison torch, transformers (flash-attn
# where it is to be compared too). A line that fails says so and the rest goes on. About 20 minutes.
#   1. 1B LLaMA, rows of 2,048, bfloat16: MFU by batch, remat and kernel (aim: 50 % of an H100's peak)
#   2. 7B, a full fine-tune step with float32 AdamW on one H200 (about 110 of 141 GB), and with a
#      bfloat16 first moment
#   3. the same 1B work in transformers + torch: SDPA, compiled, flash (aim: 1.3 times the best)
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${1:-gpu_results}
PYTHON=${PYTHON:-python3}
export PYTHONPATH=. TULU_CACHE_DIR="${TULU_CACHE_DIR-}" XLA_PYTHON_CLIENT_MEM_FRACTION=0.95
mkdir -p "$OUT"
FAILED=0

step() {  # NAME OPTIONS...
    name=$1
    shift
    if "$PYTHON" benchmarks/step.py "$@" --dtype bfloat16 --json >"$OUT/$name.json" 2>"$OUT/$name.err"; then
        "$PYTHON" - "$name" "$OUT/$name.json" <<'PY'
import json, sys
r = json.load(open(sys.argv[2]))
print(f"{sys.argv[1]:28} {r['tokens_per_s']:>9,.0f} tok/s  {r['step_s']:.4f} s  MFU {r['mfu']:.1%}  "
      f"peak {r['peak_memory_gib']:.1f} GiB  compile {r['compile_s']:.0f} s", flush=True)
PY
    else
        FAILED=1
        echo "$name FAILED: $(tail -n 1 "$OUT/$name.err" | cut -c1-200)"
    fi
}

B1="--model llama_1b --length 2048 --steps 10 --warmup 3"
for rows in 4 8 16; do
    for remat in none minimal full; do
        # shellcheck disable=SC2086
        step "1b_rows${rows}_$remat" $B1 --rows $rows --remat $remat
    done
done
for kernel in cudnn tokamax dense; do
    # shellcheck disable=SC2086
    step "1b_rows8_$kernel" $B1 --rows 8 --remat minimal --attention $kernel
done

B7="--model llama_7b --length 2048 --steps 5 --warmup 2 --remat full"
# shellcheck disable=SC2086
step 7b_rows4_f32_adamw $B7 --rows 4
# shellcheck disable=SC2086
step 7b_rows8_bf16_moment $B7 --rows 8 --moment_dtype bfloat16

for remat in none full; do
    "$PYTHON" benchmarks/vs_torch.py --model llama_1b --rows 4 --length 2048 --dtype bfloat16 --scan \
        --remat $remat --rounds 12 --warmup 3 \
        --trainers ours torch torch.compile "torch, flash" "torch.compile, flash" \
        2>"$OUT/vs_torch_$remat.err" | tee "$OUT/vs_torch_$remat.txt"
done
exit $FAILED

"""The OpenAI-compatible server: one engine, many clients."""

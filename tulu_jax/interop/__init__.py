"""Adapters to other frameworks; each imports its framework, and nothing else imports them."""

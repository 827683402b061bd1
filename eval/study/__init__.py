"""A study: datasets x base models x evaluations, as one table of steps that are run once each."""

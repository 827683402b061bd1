"""The paper's human evaluation as a web application: two completions, blind, by keyboard."""

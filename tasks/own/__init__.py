"""A user's own files of conversations, in the formats and shapes that people have.

`files` finds out what a file is and gives its records, `shapes` which fields of a record hold the
conversation, `turns` makes messages of them, `fields` sees to it that no field is lost in silence.
"""

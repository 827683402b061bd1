"""What a study keeps: tables, assignment, accounts and answers, in SQLite or PostgreSQL."""

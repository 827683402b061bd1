"""Tables and a page of what models scored, with the paper's numbers beside."""

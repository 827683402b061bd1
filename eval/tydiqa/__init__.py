"""TydiQA-GoldP: questions in nine languages."""

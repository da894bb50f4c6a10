"""How fast a model is here: loads and rounds in turns, findings, report, chart."""

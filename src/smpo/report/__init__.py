"""Tables, figures and pages made from comparisons."""

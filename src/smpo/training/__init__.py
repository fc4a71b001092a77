"""The trainer. Accelerate appears only here."""

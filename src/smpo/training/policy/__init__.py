"""What is done to the trained network: adapters, speed, its optimizer."""

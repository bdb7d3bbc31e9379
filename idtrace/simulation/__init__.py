"""Simulated vaccine supply chains with known truth: what the verdict engine is put to, dose by dose, from one seed."""

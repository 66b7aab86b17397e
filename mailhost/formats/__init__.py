"""How dates are written, where Django's own way is long or can be misread."""

"""Packets: captures and what is carried in them."""

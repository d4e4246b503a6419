"""Recordings of vehicles."""

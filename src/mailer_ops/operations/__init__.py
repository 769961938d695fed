"""Operators' tasks: dead letters, erasure, replay, tenants in trouble."""

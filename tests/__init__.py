"""Tests, in folders that mirror the packages that they test."""

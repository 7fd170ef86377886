"""The front door: each verb turns flags into dataclasses and makes one call."""

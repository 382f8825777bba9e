"""The embedded body: shape, motion, pictures, fit."""

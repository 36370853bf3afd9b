"""Triage: which series, prepared how, judged by which model, on which device, and what is said about it.

Runs in the compute role on clean, pseudonymous objects only. Nothing is imported here: a worker process must not load
what reads DICOM.
"""

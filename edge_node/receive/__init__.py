"""The door to the hospital network: who may send, what becomes of each instance, when a study is complete."""

"""The toy hospital: a PACS, a trainer, modalities and fictional patients, all on the loopback interface.

Everything identified here is invented. The room plays the outside world, so it knows nothing of the node's insides:
it may import `domain` and `config`, and no other room.
"""

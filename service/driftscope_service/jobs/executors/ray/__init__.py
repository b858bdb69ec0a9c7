"""Jobs on an existing Ray cluster: one actor each, which runs the probe as a process of its node.

executor.py    in the service: starts the driver as a child; never imports Ray
cluster.py     in the service: which cluster, and how a driver is started
driver.py      process beside the service: follows the actor
attachment.py  in any driver: attaches to the cluster, waits, fetches
node.py        the actor: starts the probe, tells what it does, hands over its files
guard.py       process on the node that outlives the actor for a moment, to clean up after it
transfer.py    which files go to the node and come back, and how large they may be
errors.py      what can go wrong between them
"""

"""Jobs on an existing Ray cluster: one actor each, which runs the probe as a process of its node.

executor.py  in the service: starts the driver as a child; never imports Ray
driver.py    process beside the service: attaches to the cluster, follows the actor
node.py      the actor: starts the probe, tells what it does, hands over its files
guard.py     process on the node that outlives the actor for a moment, to clean up after it
transfer.py  which files go to the node and come back, and how large they may be
errors.py    what can go wrong between them
"""

"""Steps that are too large for one process: analysed shard by shard, and merged exactly.

base.py        what the intake asks for
in_pool.py     with the executor `local`: in the service's own processes
on_ray.py      with the executor `ray`: in the service, starts a driver as a child
driver.py      process beside the service: takes the shards to the cluster
node_tasks.py  on the nodes: the analysis of one shard, and the merging of all
"""

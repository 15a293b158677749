"""Train detectors: mmdet's models through mmengine's Runner, on crops of annotated photos."""

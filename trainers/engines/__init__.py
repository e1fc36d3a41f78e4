"""The engines that train trials: one alone, or many as one."""

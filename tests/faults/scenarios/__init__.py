"""Each module is one kind of fault: a function of sizes and a seed that returns figures."""

"""One file is one dataflow that reads like its picture; importing a flow does nothing."""

package a

func TestElsewhere() {}

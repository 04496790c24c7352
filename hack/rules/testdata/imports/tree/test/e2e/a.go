package x

import _ "google.golang.org/grpc"

<?php
// A session, which PHP keeps in a file under a lock, and an upload.
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
printf("%s, visit %d, got %s\n", PHP_SAPI, $_SESSION['visits'], sha1(file_get_contents('php://input')));

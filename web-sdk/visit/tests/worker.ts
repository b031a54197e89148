// Nothing: the recogniser of the tests works without a worker. The page's files are complete with it.
export {};

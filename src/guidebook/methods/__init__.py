"""The methods: algorithms that adapt, each one file and one line here."""

METHODS = {
    "tfidf": "guidebook.methods.tfidf:Tfidf",
    "linear_probe": "guidebook.methods.linear_probe:LinearProbe",
    "source_only": "guidebook.methods.source_only:SourceOnly",
    "target_mlm": "guidebook.methods.target_mlm:TargetMLM",
    "general_mlm": "guidebook.methods.general_mlm:GeneralMLM",
    "domain_fusion": "guidebook.methods.domain_fusion:DomainFusion",
    "mixed": "guidebook.methods.mixed:Mixed",
    "madx": "guidebook.methods.madx:MADX",
    "joint": "guidebook.methods.joint:Joint",
    "udapter_two_step": "guidebook.methods.udapter_two_step:UDApterTwoStep",
    "udapter_joint": "guidebook.methods.udapter_joint:UDApterJoint",
    "dann": "guidebook.methods.dann:DANN",
    "target_oracle": "guidebook.methods.target_oracle:TargetOracle",
}

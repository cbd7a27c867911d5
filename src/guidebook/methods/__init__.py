"""The methods: algorithms that adapt, each one file and one line here."""

METHODS = {
    "tfidf": "guidebook.methods.tfidf:Tfidf",
    "zero_shot": "guidebook.methods.zero_shot:ZeroShot",
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
    "self_training": "guidebook.methods.self_training:SelfTraining",
    "co_training": "guidebook.methods.co_training:CoTraining",
    "mean_teacher": "guidebook.methods.mean_teacher:MeanTeacher",
    "ssd": "guidebook.methods.ssd:SSD",
    "soup": "guidebook.methods.soup:Soup",
    "task_arithmetic": "guidebook.methods.task_arithmetic:TaskArithmetic",
    "sentence_fusion": "guidebook.methods.sentence_fusion:SentenceFusion",
    "few_target_labels": "guidebook.methods.few_target_labels:FewTargetLabels",
    "teacher": "guidebook.methods.teacher:GivenTeacher",
    "target_oracle": "guidebook.methods.target_oracle:TargetOracle",
}

WITHOUT_A_MODEL = ("tfidf", "zero_shot")
"""Methods that are compared with and keep nothing to predict with later."""
